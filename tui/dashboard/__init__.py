"""The dashboard of a run. A new panel is one file in this folder and one line in `PANELS`."""

from tui.dashboard.charts import ChartsPanel
from tui.dashboard.logs import LogsPanel
from tui.dashboard.nodes import NodesPanel
from tui.dashboard.ranks import RanksPanel
from tui.dashboard.story import StoryPanel

PANELS = (RanksPanel, NodesPanel, LogsPanel, ChartsPanel, StoryPanel)
