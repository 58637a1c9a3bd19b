"""What any room may use and that knows nothing of GPT-2.

- declared    settings in JSON, checked by the fields that a class declares
- files       JSON with clear errors; files that are written whole or not at all; SHA-256
- installation    the pip command that adds an extra
- memory      arrays that start on a cache line, and memory that is used again
- progress    one line on a terminal, nothing in a pipe
- randomness  random numbers that are the same on every platform
- threads     how many threads compute, in both backends
"""
