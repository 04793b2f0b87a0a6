"""The drawn faces: invented people and their photographs, in the alignment of every ArcFace crop.

parameters.py draws the numbers of a person and of each photograph; maps.py turns a person into maps of height and
colour (with anatomy, hair and albedo); render.py poses, lights and photographs them (with pose and scene); dataset.py
writes a data set of them.
"""
