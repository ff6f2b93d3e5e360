"""The tests' own tools, where they could let a test pass or fail that should not."""

import socket

from support.zygote import Running


def test_a_program_that_ended_before_its_pid_was_read_has_ended() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"4242\n3\n")
        running = Running(["--version"], ours)
        assert (running.pid, running.wait(0), running.stays) == (4242, 3, True)
        running.leave()
