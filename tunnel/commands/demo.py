"""`tunnel demo`: to be written."""

from tunnel.config.demo import DemoConfig


def run(config: DemoConfig) -> int:
    return 1
