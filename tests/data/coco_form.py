"""A small dataset in COCO's form."""

NAME = "data_test_coco"
SQUARE = [5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]


def content():
    """Three images, six objects; category ids with a gap."""
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 40, "width": 60} for n in (1, 2, 3)
        ],
        "categories": [{"id": 9, "name": "b"}, {"id": 3, "name": "a"}],
        "annotations": [
            {
                "id": n, "image_id": n % 3 + 1, "category_id": 3 + 6 * (n % 2), "iscrowd": 0,
                "bbox": [5.0, 5.0, 20.0, 20.0], "area": 400.0, "segmentation": [SQUARE],
            }
            for n in range(1, 7)
        ],
    }  # fmt: skip


def changed(**values):
    """The first object otherwise."""
    data = content()
    data["annotations"][0].update(values)
    return data


def with_image(**values):
    """The first image otherwise."""
    data = content()
    data["images"][0].update(values)
    return data


def without(part, key):
    data = content()
    del data[part][0][key]
    return data
