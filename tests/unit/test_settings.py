"""Settings, encoder names and what is derived from them."""

from pathlib import Path

import pytest

from scanomaly.models.encoders import parse_encoder
from scanomaly.models.errors import UsageError
from scanomaly.models.settings import Settings, hide_password


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({})
    assert settings.broker_url is None
    assert str(settings.resolved_store_url) == f"sqlite:///{settings.home}/store.sqlite"
    assert settings.resolved_broker_url == f"redis+socket://{settings.broker_socket}"


def test_variables_are_read(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "SCANOMALY_HOME": str(tmp_path),
            "SCANOMALY_BATCH_SIZE": "7",
            "SCANOMALY_HUB_SECONDS": "1.5",
            "SCANOMALY_STORE_URL": "postgres://ann@db/scans",
            "SCANOMALY_BROKER_URL": " ",
        }
    )
    assert (settings.home, settings.batch_size, settings.hub_seconds) == (tmp_path, 7, 1.5)
    assert str(settings.resolved_store_url) == "postgresql+psycopg://ann@db/scans"
    assert settings.broker_url is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BATCH_SIZE", "0"),
        ("BATCH_SIZE", "many"),
        ("MAX_PIXELS", "-1"),
        ("HUB_SECONDS", "nan"),
        ("HUB_SECONDS", "x"),
    ],
)
def test_a_value_that_cannot_be_right_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"SCANOMALY_{variable}='{value}' is not"):
        Settings.from_environment({f"SCANOMALY_{variable}": value})


@pytest.mark.parametrize("variable", ["STORE_URL", "SERVER_URL"])
@pytest.mark.parametrize("mark", ["'", '"'])
def test_a_url_in_quotation_marks_is_told_without_its_password(variable: str, mark: str) -> None:
    text = f"{mark}postgresql://ann:secret@host/scans{mark}"
    with pytest.raises(UsageError, match=f"SCANOMALY_{variable}=.*quotation marks around it") as caught:
        Settings.from_environment({f"SCANOMALY_{variable}": text})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOME", "~nosuchuser/x"),
        ("ROOTS", "~nosuchuser=/b"),
        ("API_ROOTS", "/a:~nosuchuser/b"),
    ],
)
def test_nobodys_home_folder_is_told(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=r"~nosuchuser|absolute folders"):
        Settings.from_environment({f"SCANOMALY_{variable}": value})


def test_a_deep_home_has_a_short_socket(tmp_path: Path) -> None:
    deep = Settings(home=tmp_path / ("x" * 100))
    assert len(str(deep.broker_socket)) < 100
    assert deep.broker_socket != Settings(home=tmp_path / ("y" * 100)).broker_socket
    assert Settings(home=Path("/h")).broker_socket == Path("/h/broker/broker.sock")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://ann:se@cret@host/0", "redis://ann:***@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis+socket:///run/x.sock", "redis+socket:///run/x.sock"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_encoder_keys_name_everything_that_changes_a_vector(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"abc")
    keys = {
        parse_encoder().key: "open_clip/ViT-B-32/laion2b_s34b_b79k/fp32/p1",
        parse_encoder("ViT-B-32/openai").key: "open_clip/ViT-B-32/openai/fp32/p1",
        parse_encoder("ViT-L-14/openai", precision="bf16").key: "open_clip/ViT-L-14/openai/bf16/p1",
        parse_encoder("ViT-L-14", weights).key: "open_clip/ViT-L-14/sha256-ba7816bf8f01cfea/fp32/p1",
        parse_encoder("efficientnet_lite0").key: "timm/tf_efficientnet_lite0/57934424/fp32/p1",
    }
    assert all(key == expected for key, expected in keys.items())


def test_encoder_names_that_cannot_be_right(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"abc")
    with pytest.raises(UsageError, match="unknown encoder 'ViT-B-33'"):
        parse_encoder("ViT-B-33")
    with pytest.raises(UsageError, match="name one as ViT-L-14/TAG"):
        parse_encoder("ViT-L-14")
    with pytest.raises(UsageError, match="has its own weights"):
        parse_encoder("efficientnet_lite0", weights)
    with pytest.raises(UsageError, match="replaces the tag"):
        parse_encoder("ViT-B-32/openai", weights)
    with pytest.raises(UsageError, match="cannot be read"):
        parse_encoder("ViT-B-32", tmp_path / "none.pt")
    with pytest.raises(UsageError, match="unknown precision"):
        parse_encoder(precision="int4")


def test_a_folder_may_have_another_path_on_a_worker() -> None:
    settings = Settings.from_environment(
        {"SCANOMALY_ROOTS": "/mnt/scans=/scans:/mnt/scans/old=/archive:/out=/reports"}
    )
    for there, here in {
        "/mnt/scans/brain/1.png": "/scans/brain/1.png",
        "/mnt/scans": "/scans",
        "/mnt/scans/old/2.png": "/archive/2.png",
        "/mnt/scansnot/3.png": "/mnt/scansnot/3.png",
        "/out/job": "/reports/job",
        "/elsewhere": "/elsewhere",
    }.items():
        assert settings.local_path(there) == Path(here)


@pytest.mark.parametrize("value", ["/a", "/a=b", "a=/b", "/a=/b:/c"])
def test_a_map_of_folders_that_cannot_be_right_is_named(value: str) -> None:
    with pytest.raises(UsageError, match="is not a list of absolute folders"):
        Settings.from_environment({"SCANOMALY_ROOTS": value})
