"""From logits to ids. The files in reading order:

options       what an option's field carries; config: the options themselves
features      what excludes what
prompt        what the caller gave, checked, each row's ids at the right
state         rows under way: their ids, the cache, positions and mask of what was read
processors    scores -> scores, a function for each idea; chain: their order
sampling      scores -> an id
stopping      which rows have ended
job           a call of `generate`, checked: what the strategies work on
outputs       what is returned
loop          greedy decoding and sampling, and the window over long sequences
beams         beam search and beam sampling; group_beams: diverse beam search
contrastive   contrastive search
speculative   several ids a pass, and not one of them changed
streamers     ids and text as they come
prefix_cache  what was read before need not be read again
mixin         generate and stream, which choose the strategy
"""
