"""Recommenders on Keras 3 and TensorFlow, trained data-parallel with Horovod.

Importing ``tfrec`` is cheap: TensorFlow is loaded only with the part that needs it.
"""

__version__ = "0.1.0"
