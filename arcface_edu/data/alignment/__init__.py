"""From photographs to aligned faces: five landmarks of each face, detected or from a table, and the warp by them."""
