"""From scores to ids. The files in reading order:

prompt        what the caller gave, checked, each text at the right
context       rows under way: the cache, positions and masks of what was read
processors    scores -> scores, a function for each idea; chain: their order
sampling      scores -> an id
stopping      which rows have ended
loop          greedy decoding and sampling, and the window over long texts
beams         beam search and beam sampling; group_beams: diverse beam search
contrastive   contrastive search
speculative   several ids a pass, and not one of them changed
streamers     ids and text as they come
prefix_cache  what was read before need not be read again
outputs       what comes back; config: the options; mixin: generate and stream
"""
