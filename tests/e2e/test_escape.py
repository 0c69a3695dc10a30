"""Tunnels added and removed with ~C on a terminal."""


from net import echoes, is_listening
from procs import until


class Terminal:
    """ssh relay on a pty, with its command line enabled."""

    def __init__(self, principal):
        self.pty = principal.ssh_pty("-o", "EnableEscapeCommandline=yes")
        self.pty.expect(principal.name)

    def command(self, line, answer):
        since = self.pty.mark()
        self.pty.send("\r~C")
        self.pty.expect(r"ssh> $", since)
        since = self.pty.mark()
        self.pty.send(line + "\r")
        self.pty.expect(answer, since)


def test_R_and_KR(relay, net, raspi, alice):
    terminal, echo, web = Terminal(raspi), net.echo(), net.echo()
    terminal.command(f"-R 7:localhost:{echo.port}", "Forwarding port")
    relay.wait_published("raspi:7")
    terminal.command(f"-R web.raspi:8:localhost:{web.port}", "Forwarding port")
    relay.wait_published("web.raspi:8")
    assert alice.through_W("raspi:7").finish(b"over ~C") == (0, b"over ~C")
    assert alice.through_W("web.raspi:8").finish(b"over ~C") == (0, b"over ~C")

    terminal.command("-KR 7", "Canceled forwarding")
    relay.wait_withdrawn("raspi:7")
    assert relay.endpoint("web.raspi:8")["online"]
    terminal.command("-KR web.raspi:8", "Canceled forwarding")
    relay.wait_withdrawn("web.raspi:8")

    terminal.command(f"-R 7:localhost:{echo.port}", "Forwarding port")
    relay.wait_published("raspi:7")
    assert alice.through_W("raspi:7").finish(b"again") == (0, b"again")
    assert terminal.pty.running


def test_L_and_KL(relay, net, raspi, alice):
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    terminal, port = Terminal(alice), net.free_port()
    for _ in range(2):
        terminal.command(f"-L {port}:raspi:7", "Forwarding port")
        until(lambda: is_listening(port), what="~C -L listening")
        assert echoes(net.connect(port))
        terminal.command(f"-KL {port}", "Canceled forwarding")
        until(lambda: not is_listening(port), what="~C -KL closed")
    assert terminal.pty.running


def test_a_refused_R_leaves_the_session_up(relay, net, raspi, alice):
    """The reply to ~C -R is not waited for by ssh; a refusal must not confuse what follows."""
    terminal, echo = Terminal(raspi), net.echo()
    terminal.command(f"-R elsewhere:7:localhost:{echo.port}", "Forwarding port")
    relay.wait_log(r'refused publish "elsewhere:7": not_allowed')
    terminal.command(f"-R 7:localhost:{echo.port}", "Forwarding port")
    relay.wait_published("raspi:7")
    assert alice.through_W("raspi:7").finish(b"fine") == (0, b"fine")
    assert terminal.pty.running
