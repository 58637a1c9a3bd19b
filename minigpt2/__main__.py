"""`python -m minigpt2` is the `minigpt2` command."""

import sys

from .cli import main

sys.exit(main())
