import os
import signal
import threading

from imbalance.utils.torch_state import own_torch_state


def test_a_process_that_is_forked_while_a_thread_trains_can_train():
    inside, ended = threading.Event(), threading.Event()

    def train() -> None:
        with own_torch_state():
            inside.set()
            ended.wait(30)

    thread = threading.Thread(target=train)
    thread.start()
    inside.wait(30)
    child = os.fork()
    if not child:
        signal.alarm(10)  # a child that waits for the thread is killed
        with own_torch_state():
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    ended.set()
    thread.join()
    assert status == 0
