"""A stranger's embedder in one file: which colours a picture holds, wherever they are."""

import numpy as np


class Colours:
    model = "colours"

    def __init__(self, levels: int = 4) -> None:
        self.levels = levels
        self.revision = f"{levels} levels"

    def embed_images(self, images):
        rows = []
        for image in images:
            pixels = np.asarray(image).reshape(-1, 3).astype(int) * self.levels // 256
            places = pixels @ (self.levels**2, self.levels, 1)
            rows.append(np.sqrt(np.bincount(places, minlength=self.levels**3) / len(places)))
        return np.array(rows, np.float32)
