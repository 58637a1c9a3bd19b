"""From scores to ids: processors change scores, the loop chooses and goes on."""
