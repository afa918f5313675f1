"""Serve a web page in which a speech language model continues what you record.

```
python hub_scripts/demo.py --model outputs/quickstart
```

The default model comes with the package. The page works without a network. Only this machine can open it, unless
`--host 0.0.0.0` opens it to others.
"""

from dataclasses import dataclass, field

from slam_hf.command_line import parse_arguments, run


@dataclass
class DemoArguments:
    model: str = field(default="quickstart:model", metadata={"help": "Folder or Hub id of the model."})
    codec: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of its codec. Default: the one that the model names."}
    )
    revision: str | None = field(default=None, metadata={"help": "Commit, branch or tag of a model on the Hub."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: int | None = field(default=None, metadata={"help": "Port. Default: the first free one from 7860 on."})
    open_browser: bool = field(default=False, metadata={"help": "Whether to open the page in a browser."})


def main(args: DemoArguments) -> None:
    try:
        from slam_hf.demo.launch import launch_demo
    except ImportError as error:
        if error.name != "gradio":
            raise
        raise ImportError('The page needs gradio: pip install "slam-hf[demo]".') from None
    launch_demo(
        args.model,
        args.codec,
        args.revision,
        server_name=args.host,
        server_port=args.port,
        inbrowser=args.open_browser,
    )


if __name__ == "__main__":
    run(lambda: main(*parse_arguments(__doc__, [DemoArguments])))
