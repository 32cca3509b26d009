"""``/api/v1/chat/models``."""

from chatstream.handlers.base import BaseHandler
from chatstream.handlers.door import Door
from chatstream.handlers.views import ModelList, model_view
from chatstream.llm.catalogue import UserChoices


class ModelsHandler(BaseHandler):
    """The models that users may choose."""

    def initialize(self, door: Door, choices: UserChoices) -> None:  # type: ignore[override]  # its own collaborator
        """`choices`: the models that users may choose."""
        super().initialize(door)
        self.choices = choices

    def get(self) -> None:
        """Send all of them, in the operator's order."""
        self.tell(self.door.limits.reads.take(self.user.id))
        default = self.choices.catalogue.default
        self.send_json(ModelList(models=[model_view(one, is_default=one is default) for one in self.choices.offered]))

    head = get
