"""Image multilabel: from an image folder to a scored submission."""

import os

# Whatever of this package is imported, this stands before albumentations, which otherwise asks a
# server for its newest version whenever it is imported, and waits for the answer.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
