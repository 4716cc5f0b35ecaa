import os
import subprocess
import sys

import psutil

from lake.processes import living_process


def test_a_living_process_is_told_again():
    own = psutil.Process(os.getpid())
    assert living_process(own.pid, own.create_time()) == own


def test_a_number_that_went_to_another_process_is_not_the_one():
    assert living_process(os.getpid(), psutil.Process(os.getpid()).create_time() - 100) is None


def test_a_process_that_ended_is_none_even_before_its_parent_looks():
    child = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(child.pid).create_time()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert living_process(child.pid, created) is None
    child.wait()
    assert living_process(child.pid, created) is None
