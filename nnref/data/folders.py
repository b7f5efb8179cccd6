"""Folders of images: a folder for each class, below folders of splits where there are some."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from nnref.data.prepare import first_five, host_memory, warn
from nnref.data.splitting import NAMES, Rows
from nnref.errors import UserError

IMAGES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".pgm", ".ppm"),
)
GREY, DEEP = ("1", "L", "LA"), ("I", "F")  # modes of Pillow; deep ones have more than 8 bits
TURNED = (5, 6, 7, 8)  # orientations of Exif under which width and height change places
SPLITS = {word: split for split, words in NAMES.items() for word in words}

Colors = Literal["auto", "grey", "rgb"]


class Images(NamedTuple):
    """The images of a folder, each with its class, and the rows of each split where there are some.

    Attributes:
        x: bytes, (rows, height, width, channels).
        y: names of classes, (rows,).
        rows: of the splits; None for one folder that is to be split.
        files: where each image is, below the folder.
        note: how they are read, in words.
    """

    x: np.ndarray
    y: np.ndarray
    rows: Rows | None
    files: tuple[str, ...]
    note: str


class Header(NamedTuple):
    """What is known of an image before its pixels are read."""

    size: tuple[int, int]  # height, width
    mode: str
    transparent: bool


def read_folder(where: Path, resize: Sequence[int], colors: Colors) -> Images:
    """All images below a folder, in the order of their names.

    Args:
        where: a folder whose folders are classes, or splits that hold the folders of the classes.
        resize: height and width, or one number for both; none for images that have one size.
        colors: grey or in three colours; "auto" for grey where all of them are.

    Raises:
        UserError: for a folder without classes, images that cannot be read, or of several sizes.
    """
    splits = splits_of(where)
    found = [
        (split, name, file)
        for split, folder in splits.items()
        for name, files in classes_of(folder).items()
        for file in files
    ]
    files = [file for _, _, file in found]
    x, note = read_images(where, files, shape_of(resize), colors)
    of_split = np.array([split for split, _, _ in found])
    rows = {split: np.flatnonzero(of_split == split) for split in NAMES if split in splits}
    return Images(
        x,
        np.array([name for _, name, _ in found]),
        None if splits["train"] == where else rows,
        tuple(file.relative_to(where).as_posix() for file in files),
        note,
    )


def splits_of(where: Path) -> dict[str, Path]:
    """The folders of the splits; the folder itself as "train" where it holds the classes.

    A class may be called "train": a folder is a split where images lie in its folders alone.

    Raises:
        UserError: where some folders are splits and others are classes, or none is for training.
    """
    inner = folders_in(where)
    splits = {
        folder: SPLITS[folder.name.lower()]
        for folder in inner
        if folder.name.lower() in SPLITS and not images_in(folder) and folders_in(folder)
    }
    if not splits:
        return {"train": where}
    others = [folder.name for folder in inner if folder not in splits]
    if others:
        raise UserError(
            f"data.path: {where} has folders of splits ({first_five([f.name for f in splits])}) "
            f"beside others ({first_five(others)}); put the classes into train, valid and test, or "
            "leave these out"
        )
    twice = [name for name, count in Counter(splits.values()).items() if count > 1]
    if twice or "train" not in splits.values():
        problem = f"two folders for {twice[0]}" if twice else "no folder train"
        raise UserError(
            f"data.path: {where} has {problem}, beside {first_five([f.name for f in splits])}; "
            "it takes one each of train, valid and test"
        )
    return {split: folder for folder, split in splits.items()}


def classes_of(folder: Path) -> dict[str, list[Path]]:
    """The images of each class, with those in folders further below.

    Raises:
        UserError: where there are no folders with images.
    """
    classes = {inner.name: list(images_below(inner)) for inner in folders_in(folder)}
    empty = [name for name, files in classes.items() if not files]
    beside = len(images_in(folder))
    if len(empty) == len(classes):
        problem = f"{beside} images and no folders of them" if beside else "no folders of images"
        raise UserError(
            f"data.path: {folder} holds {problem}; put the images of each class into a folder with "
            f"the name of the class, as {', '.join(IMAGES)}"
        )
    if beside:
        warn(f"data: {beside} images lie beside the classes in {folder}; they are left out")
    if empty:
        warn(f"data: no images in {first_five(empty)} of {folder}; these are no classes")
    return {name: files for name, files in classes.items() if files}


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder but hidden ones, by name."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """The images that lie in a folder itself, by name."""
    return sorted(f for f in folder.iterdir() if is_named_as_image(f) and f.is_file())


def images_below(folder: Path) -> Iterator[Path]:
    """The images in a folder and in the folders below it, by name."""
    yield from images_in(folder)
    for inner in folders_in(folder):
        yield from images_below(inner)


def is_named_as_image(path: Path) -> bool:
    """Whether a file has the ending of an image, and is not hidden."""
    return path.name.lower().endswith(IMAGES) and not path.name.startswith(".")


# --- reading --------------------------------------------------------------------------------------


def shape_of(resize: Sequence[int]) -> tuple[int, int] | None:
    """Height and width as they are asked for; None where they are not.

    Raises:
        UserError: for more than two numbers.
    """
    if len(resize) > 2:
        raise UserError(
            f"data.resize: {list(resize)} given; height and width are two numbers, a square one"
        )
    return (resize[0], resize[-1]) if resize else None


def read_images(
    where: Path, files: Sequence[Path], shape: tuple[int, int] | None, colors: Colors
) -> tuple[np.ndarray, str]:
    """Images as bytes, (rows, height, width, channels), and how they were read.

    Raises:
        UserError: for images of several sizes where no shape is given, and for too many.
    """
    headers = [header_of(file) for file in files]
    sizes = Counter(header.size for header in headers)
    usual = sizes.most_common(1)[0][0]
    if shape is None and len(sizes) > 1:
        other = next(place for place, header in enumerate(headers) if header.size != usual)
        height, width = headers[other].size
        raise UserError(
            f"data.path: the images in {where} have {len(sizes)} sizes: {sizes[usual]} of "
            f"{len(files)} are {usual[0]} high and {usual[1]} wide, {files[other]} is {height} "
            f'high and {width} wide; write "resize": [{usual[0]}, {usual[1]}]'
        )
    height, width = shape or usual
    grey = sum(header.mode in GREY for header in headers)
    rgb = colors == "rgb" or (colors == "auto" and grey < len(files))
    if colors == "auto" and 0 < grey < len(files):
        warn(
            f"data: {grey} of {len(files)} images are grey, and read in three equal colours; for "
            'grey images write "colors": "grey"'
        )
    clear = sum(header.transparent for header in headers)
    if clear:
        warn(f"data: {clear} of {len(files)} images may be transparent; white is put behind them")
    wanted = (len(files), height, width, 3 if rgb else 1)
    refuse_many(where, wanted)
    x = np.empty(wanted, np.uint8)
    for place, file in enumerate(files):
        x[place] = pixels_of(file, (height, width), "RGB" if rgb else "L")
    resized = sum(count for size, count in sizes.items() if size != (height, width))
    note = f"images: {height} high, {width} wide, {'in colour' if rgb else 'grey'}"
    return x, note + (f"; {resized} of {len(files)} are resized" if resized else "")


def refuse_many(where: Path, shape: tuple[int, ...]) -> None:
    """Raise where the bytes of all images would take more than half of the memory."""
    size = float(np.prod(shape, dtype=np.float64))
    memory = host_memory()
    if size > memory / 2:
        raise UserError(
            f"data.path: {shape[0]:,} images of {shape[1]} x {shape[2]} in {where} take "
            f"{size / 2**30:,.1f} GB, and the memory is {memory / 2**30:,.1f} GB; give a smaller "
            '"resize"'
        )


def header_of(file: Path) -> Header:
    """Size and mode of an image, with the pixels unread.

    Raises:
        UserError: for a file that is no image, or has more than 8 bits for a colour.
    """
    with opened(file) as image:
        turned = image.getexif().get(0x0112) in TURNED
        size = image.size if turned else image.size[::-1]
        if image.mode.split(";")[0] in DEEP:
            raise UserError(
                f"data.path: {file} has more than 8 bits a pixel (mode {image.mode}), and bytes "
                "would cut them; save such images as arrays in a .npz"
            )
        return Header(size, image.mode, is_transparent(image))


def is_transparent(image: Any) -> bool:
    """Whether an image has a channel, or a colour, through which one sees."""
    return image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info


def pixels_of(file: Path, shape: tuple[int, int], mode: Literal["L", "RGB"]) -> np.ndarray:
    """An image as bytes, (height, width, channels): upright, on white, squeezed to the shape."""
    from PIL import Image, ImageOps

    with opened(file) as image:
        upright = ImageOps.exif_transpose(image)
        if is_transparent(image):
            above = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        made = upright.convert(mode)
        height, width = shape
        if made.size != (width, height):
            made = made.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(made).reshape(*shape, -1)


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """An image, open.

    Raises:
        UserError: for a file that is none, or damaged where it is read.
    """
    from PIL import Image

    damage = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images; all of them are weighed before
            image = Image.open(file)
        with image:
            yield image
    except damage as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).replace(f" {str(file)!r}", "")
        raise UserError(
            f"data.path: {file} is no readable image ({reason}); mend it, or take it away"
        ) from None


def files_at(path: Path) -> list[Path]:
    """An image, or the images in a folder and below it, by name.

    Raises:
        UserError: where there are none.
    """
    files = list(images_below(path)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: there are no images in it, such as {', '.join(IMAGES[:3])}")
    return files


def new_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Images to be predicted, as bytes of the shape (height, width, channels) of those of training.

    A warning tells how many had to be resized.

    Raises:
        UserError: for what is no image.
    """
    files, (height, width, channels) = files_at(path), shape
    resized = sum(header_of(file).size != (height, width) for file in files)
    if resized:
        warn(f"{path}: {resized} of {len(files)} images are resized to {height} x {width}")
    mode = "RGB" if channels == 3 else "L"
    return np.stack([pixels_of(file, (height, width), mode) for file in files])
