"""`rankproof zoo`: the models that ship with rankproof."""

from rankproof.cli.output import echo
from rankproof.cli.terminal import reported, say


def zoo() -> None:
    """List the pretrained models that come with rankproof.

    Use one of them as `--model zoo:NAME`.

    **Example**

    ```
    rankproof zoo
    rankproof attack --goal qa+ --eps 8/255 --model zoo:fashion-mnist/c2f1-ct --data fashion-mnist
    ```
    """
    with reported("nothing was changed"):
        from rankproof.models import load_checkpoint, zoo_names

        names = zoo_names()
        for name in names:
            record = load_checkpoint(f"zoo:{name}").record
            details = f"{record['arch']}, {record['distance']}, trained on {record['data']}"
            settings = record.get("settings", {})
            if (defense := settings.get("defense", {}).get("name", "none")) != "none":
                details += f", defended by {defense} ({settings['schedule']} schedule)"
            echo(f"zoo:{name}  {details}, R@1 {record['recall_at_1']:.1f} %")
        if not names:
            say("the zoo is still empty")
