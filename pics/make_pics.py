"""Draw the pictures of README again: `make pics`, about two minutes after the runs that they show.

The angles and pairs are those of runs/drawn_faces (ArcFace) and runs/softmax; the eight people in the plane are trained
here, in half a minute on one core.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from arcface_edu import angles
from arcface_edu.course import cost
from arcface_edu.course.eight_people import PEOPLE, draw_people, portraits, train_small
from arcface_edu.course.figures.animations import animate_plane, animate_target_angles, save_animation
from arcface_edu.course.figures.data_parallel import plot_dp_ddp_timelines
from arcface_edu.course.figures.hero import plot_hero
from arcface_edu.course.figures.overview import plot_pipeline, plot_sharded_head
from arcface_edu.course.figures.resnet import plot_blocks
from arcface_edu.data.bins import read_pairs
from arcface_edu.data.images import decode
from arcface_edu.data.synthetic.dataset import draw_person
from arcface_edu.evaluation.embedding import embed_images
from arcface_edu.evaluation.verification import verify_pairs
from arcface_edu.figures.faces import contact_sheet
from arcface_edu.figures.style import save
from arcface_edu.heads import MarginSoftmax, Softmax
from arcface_edu.runs import open_run
from arcface_edu.training.metrics import read_metrics
from arcface_edu.training.prepare import find_pair_files

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs"
ROWS = range(200, 208)  # of the population with seed 0


def main():
    rows = [[decode(photo) for photo in draw_person(seed=0, person=person, photos=8)] for person in ROWS]
    save(contact_sheet(rows, title="Every row is one person, drawn eight times"), HERE / "drawn_faces.png")
    for name in ("target_angles", "pair_angles_drawn", "hardest_pairs_drawn"):
        shutil.copyfile(RUNS / "drawn_faces" / "figures" / f"{name}.png", HERE / f"{name}.png")
    angles.main([str(RUNS / "drawn_faces"), str(RUNS / "softmax"), "--output", str(RUNS / "angles")])
    for name in ("closest_ArcFace", "norm_faces_ArcFace", "nearest_centres", "pairs_drawn"):
        shutil.copyfile(RUNS / "angles" / f"angles_{name}.png", HERE / f"angles_{name}.png")
    draw_hero()
    save(plot_blocks(), HERE / "blocks.png")
    save(plot_sharded_head(), HERE / "sharded_head.png")
    save(plot_pipeline(), HERE / "pipeline.png")
    times = cost.milliseconds(cost.cost_of("r50"), batch=128, bandwidth=12)
    save(plot_dp_ddp_timelines(times, "r50, 128 images a GPU, V100s linked at 12 GB/s"), HERE / "dp_ddp.png")
    draw_sharpening()
    draw_eight_people()


def draw_hero():
    trained = open_run(RUNS / "drawn_faces")
    images, is_same = read_pairs(next(iter(find_pair_files(trained.config, Path(trained.config.rec)))))
    degrees = np.degrees(np.arccos(verify_pairs(embed_images(trained.model, images), is_same)["cosines"].clip(-1, 1)))

    def typical(kind):
        """The pair of that kind whose angle is the most ordinary: (first, second, degrees)."""
        places = np.flatnonzero(kind)
        place = places[np.abs(degrees[places] - np.median(degrees[places])).argmin()]
        return decode(images[2 * place]), decode(images[2 * place + 1]), degrees[place]

    people = [[decode(photo) for photo in draw_person(seed=0, person=person, photos=3)] for person in (200, 205)]
    hero = plot_hero(people, degrees, is_same, (typical(is_same), typical(~is_same)))
    picture = Image.open(save(hero, HERE / "arcface.png"))
    # A palette: a quarter of the bytes of what everybody loads first.
    picture.quantize(256, Image.Quantize.FASTOCTREE).save(HERE / "arcface.png", optimize=True)


def draw_sharpening():
    lines = [line for line in read_metrics(RUNS / "drawn_faces" / "metrics.jsonl") if "loss" in line]
    steps, histograms = ([line[key] for line in lines] for key in ("step", "target_angle_histogram"))
    save_animation(animate_target_angles(steps, histograms), HERE / "angles_sharpen.gif")


def draw_eight_people():
    images, labels = draw_people()
    softmax = train_small(images, labels, Softmax(2, PEOPLE))
    arcface = train_small(images, labels, MarginSoftmax(2, PEOPLE, margin=(1, 0.3, 0), scale=8))
    histories = {"softmax": softmax[1:3], "ArcFace": arcface[1:3]}
    notes = [f"eight people in two dimensions, 100 photographs each: step {step}" for step in softmax.steps]
    save_animation(animate_plane(histories, labels, portraits(), notes), HERE / "eight_people.gif", seconds=8)


if __name__ == "__main__":
    main()
