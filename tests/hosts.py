"""Several machines on this one: network namespaces with a card, an address and a name each, on one switch.

All of it lives in a user namespace, so that it needs no root and leaves nothing behind.
"""

import os
import shutil
import subprocess

SWITCH = """
mount -t tmpfs tmpfs /run
ip link add switch type bridge
ip link set switch up
for number in {numbers}; do
    ip netns add host$number
    ip link add port$number type veth peer name eth0 netns host$number
    ip link set port$number master switch up
    ip -n host$number address add 10.9.0.$number/24 dev eth0
    ip -n host$number link set eth0 up
    ip -n host$number link set lo up
done
echo ready
exec cat
"""


def why_not():
    """What this machine lacks to have others within it, in words; None if nothing."""
    for tool, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        if not shutil.which(tool):
            return f"the command {tool} is missing; on Debian or Ubuntu: apt install {package}"
    trial = subprocess.run(["unshare", "-Urnm", "ip", "link", "add", "switch", "type", "bridge"], capture_output=True)
    if trial.returncode:
        return f"the kernel allows no network namespaces here: {trial.stderr.decode().strip()}"
    return None


class Hosts:
    """`count` machines, host1 (10.9.0.1) and so on, which know one another by name.

    knows_itself=False: a machine's own name means 127.0.1.1 to it, as Debian's installer sets it up.
    """

    def __init__(self, count, folder, knows_itself=True):
        self.folder, self.running = folder, []
        numbers = range(1, count + 1)
        for mine in numbers:
            lines = ["127.0.0.1 localhost"]
            for number in numbers:
                itself = number == mine and not knows_itself
                lines.append(f"{'127.0.1.1' if itself else f'10.9.0.{number}'} host{number}")
            (folder / f"hosts{mine}").write_text("\n".join(lines) + "\n")
        script = SWITCH.format(numbers=" ".join(map(str, numbers)))
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.switch = subprocess.Popen(["unshare", "-Urnm", "sh", "-ec", script], **pipes)
        assert self.switch.stdout.readline() == "ready\n"

    def within(self, *command):
        enter = ["nsenter", "-t", str(self.switch.pid), "-U", "-n", "-m", "--preserve-credentials"]
        return [*enter, *command]

    def start(self, number, command, log, **environment):
        """Run a command on a host, its output in the file `log`. To kill it is to pull that host's plug."""
        boot = f'hostname host{number}; mount --bind {self.folder}/hosts{number} /etc/hosts; exec "$@"'
        own = ["unshare", "-ump", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", boot, "boot", *command]
        with open(log, "w") as file:
            process = subprocess.Popen(
                self.within("ip", "netns", "exec", f"host{number}", *own),
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.running.append(process)
        return process

    def cut(self, number):
        subprocess.run(self.within("ip", "link", "set", f"port{number}", "down"), check=True)

    def mend(self, number):
        subprocess.run(self.within("ip", "link", "set", f"port{number}", "up"), check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self.running, self.switch]:
            process.kill()
            process.wait()
        self.switch.stdin.close()
        self.switch.stdout.close()
