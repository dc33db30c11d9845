"""What a run remembers and says: scalar histories, the message hub, the logger."""

from fasttrain.logging.history_buffer import HistoryBuffer
from fasttrain.logging.logger import MMLogger, print_log
from fasttrain.logging.message_hub import MessageHub

__all__ = ["HistoryBuffer", "MMLogger", "MessageHub", "print_log"]
