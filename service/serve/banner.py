"""What a person sees once it runs: where, with which key, and the first three lines to type."""

from pathlib import Path

from service.registry import Registry


def render_banner(*, url: str, api_key: str | None, data_dir: Path, backend: str, registry: Registry) -> str:
    key_line = (
        f"  API key (shown once): {api_key}"
        if api_key
        else "  API key:   the one shown at the first start, or DPO_BOOTSTRAP_KEY"
    )
    return f"""
dpo-service is listening on {url}
{key_line}
  Data:      {data_dir}
  Runs on:   {backend}
  Models:    {", ".join(registry)}

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{api_key or "YOUR KEY"}")
  print(client.models.list())

Ctrl-C stops it; nothing is left running, and jobs go on at the next start.
"""
