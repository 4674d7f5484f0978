"""A name of a media file is a file, never an address; a file that names other files is not opened."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from xdub.errors import UserError
from xdub.media import probe, read_audio, read_video, write_video

NAMES = [
    *("2024-05-01T10:20:30", "http:", "pipe:", "file:x", "concat:a|b", "data:text", "-y", "%03d", "a?b#c"),
    *("new\nline", " blank", "a\\b", "[{*}]'\"", "日本語😀", "x" * 240, os.fsdecode(b"\xff\xfe")),
]

PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nin.ts\n#EXT-X-ENDLIST\n",
    "address.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/in.ts\n#EXT-X-ENDLIST\n",
    "a.ffconcat": "ffconcat version 1.0\nfile in.mp4\n",
    "renamed.mp4": "ffconcat version 1.0\nfile in.mp4\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "notes.txt": "hello " * 100,
}


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_is_written_and_read(name, media, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}.mp4")
    write_video(path, media.ramps(3), audio=np.zeros(1920, np.float32))
    assert os.listdir() == [f"{name}.mp4"]
    assert [media.number(frame) for frame in read_video(path)] == [0, 1, 2]
    assert probe(path).frames == 3 and read_audio(path).size == 1920
    media.wav(f"{name}.wav", media.tone(0.5, 16000), 16000)
    assert read_audio(Path(f"{name}.wav")).size == 8000


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_text_or_playlist_is_refused_in_one_line_without_opening_the_files_it_names(name, media, tmp_path):
    media.video("in.mp4")
    (tmp_path / name).write_text(PLAYLISTS[name])
    for read in (probe, read_video, read_audio):
        with pytest.raises(UserError, match="a playlist that names other files") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_name_is_no_pattern_of_a_series_of_pictures(media, tmp_path):
    import cv2

    for name in ("%d", "1", "2"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), media.ramp(3))
    with pytest.raises(UserError):
        read_video(tmp_path / "%d.png")
