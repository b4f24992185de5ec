import json
from pathlib import Path

from spslam.config import Config, LoopConfig
from spslam.map.io import save_map
from spslam.map.map import Origin
from spslam.visualization.saved_run import load_map_view


def test_edges_follow_the_configuration_of_the_run(landmarks, tmp_path: Path) -> None:
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose(0.1 * i) for i in range(4)], noise_px=0.5)
    slam_map.origin = Origin("stereo", scene.camera, "orb", "baseline")
    save_map(tmp_path / "map.npz", slam_map)
    (tmp_path / "metrics.json").write_text(
        json.dumps({"sequence": "x", "sensor": "stereo", "extractor": "orb"})
    )
    for name in ("trajectory.tum", "keyframes.tum"):
        (tmp_path / name).write_text("# nothing\n")
    assert len(load_map_view(tmp_path).covisible) == 6
    config = Config(loop=LoopConfig(min_covisibility=10**6))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_map_view(tmp_path).covisible.tolist() == [[0, 1], [1, 2], [2, 3]], (
        "neighbours in time stay connected"
    )
