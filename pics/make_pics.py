"""Draw the pictures of README again: `make pics`. The angles and pairs are those of the run in runs/drawn_faces."""

import shutil
from pathlib import Path

from arcface_edu.data.faces import draw_person
from arcface_edu.data.images import decode
from arcface_edu.figures.faces import contact_sheet
from arcface_edu.figures.style import save

HERE = Path(__file__).parent
RUN = HERE.parent / "runs" / "drawn_faces"
PEOPLE = range(200, 208)  # of the population with seed 0


def main():
    rows = [[decode(photo) for photo in draw_person(seed=0, person=person, photos=8)] for person in PEOPLE]
    save(contact_sheet(rows, title="Every row is one person, drawn eight times"), HERE / "drawn_faces.png")
    for name in ("target_angles", "pair_angles_drawn", "hardest_pairs_drawn"):
        shutil.copyfile(RUN / "figures" / f"{name}.png", HERE / f"{name}.png")


if __name__ == "__main__":
    main()
