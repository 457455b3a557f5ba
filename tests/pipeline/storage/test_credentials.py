"""A signed link without what signs it."""

import pytest

from pipeline.storage import without_credentials


@pytest.mark.parametrize(
    ("link", "name"),
    [
        (
            "https://b.s3.amazonaws.com/a.flac?X-Amz-Credential=AK%2F2&X-Amz-Signature=0f",
            "https://b.s3.amazonaws.com/a.flac",
        ),
        ("https://h/a.flac?versionId=3&x-amz-signature=0f", "https://h/a.flac?versionId=3"),
        ("https://h/a.flac?sig=0%2F=&versionId=3#t=1", "https://h/a.flac?versionId=3#t=1"),
        (
            "https://storage.googleapis.com/b/a.flac?X-Goog-Signature=0f",
            "https://storage.googleapis.com/b/a.flac",
        ),
        ("https://h/get?id=7&token=hf_x", "https://h/get?id=7"),
    ],
)
def test_what_signs_a_link_goes_and_what_names_the_file_stays(link: str, name: str):
    assert without_credentials(link) == name


@pytest.mark.parametrize(
    "name",
    [
        "a/b.flac",
        "https://h/get?id=7",
        "what?",
        "a&b.wav",
        "sig=1.wav",
        "https://h/a?design=x",
        "~/?",
    ],
)
def test_every_other_name_is_left_alone(name: str):
    assert without_credentials(name) == name
