"""Two tiny engines, installed as a plug-in by putting this folder's parent on the path.

`test_pictures`: noise prediction, two stages, two trainable components, a conditioning picture, aspect buckets.
`test_tokens`: next-token prediction, whole-file cache, random crops with their offset, a head that is a raw Parameter.
Both read real files, run in milliseconds and import torch only when asked to compute.
"""
