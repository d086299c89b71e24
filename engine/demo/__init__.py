"""The demo: a small world with dirt in it, a pipeline over it, and the REST server of its tasks."""

from engine.demo.show import run_demo, serve_demo

__all__ = ["run_demo", "serve_demo"]
