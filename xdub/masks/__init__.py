"""Masks of training clips (paper B.2): the face that the generator inpaints, and the objects in front of the face."""
