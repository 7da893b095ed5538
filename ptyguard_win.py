"""Windows back-end: not there yet.

The contract's names are here, so that the house can be read against both back-ends
(tests/test_backend_contract.py); each of them ends in the same one sentence.
"""

from ptyguard_core.errors import Unsupported


def _unsupported():
    return Unsupported("ptyguard does not support this platform yet",
                       hint="it runs on Linux and macOS; under Windows use WSL")


def find_paths(explicit=None):
    raise _unsupported()


def look_for_paths(explicit=None):
    raise _unsupported()


def user_id():
    raise _unsupported()


def user_home():
    raise _unsupported()


def user_shell():
    raise _unsupported()


def boot_id():
    raise _unsupported()


def check_private(path):
    raise _unsupported()


def process_start(pid):
    raise _unsupported()


def process_table():
    raise _unsupported()


def process_facts(pid):
    raise _unsupported()


def signal_process(pid, start, signum):
    raise _unsupported()


def signal_group(group, signum):
    raise _unsupported()


def signal_number(name):
    raise _unsupported()


def marked_processes(mark):
    raise _unsupported()


def signal_name(number):
    raise _unsupported()


def decode_status(raw):
    raise _unsupported()


def reap_children():
    raise _unsupported()


def watch_process(pid, start):
    raise _unsupported()


def launch(argv, environment, descriptors, log_path, detach):
    raise _unsupported()


def begin_launch(argv, environment, descriptors, log_path):
    raise _unsupported()


def run_in_place(argv, environment, descriptors):
    raise _unsupported()


def block_signals(names):
    raise _unsupported()


def unblock_signals(names):
    raise _unsupported()


def begin_command(argv):
    raise _unsupported()


def try_program(argv, timeout_s):
    raise _unsupported()


def own_limits():
    raise _unsupported()


def raise_descriptor_limit():
    raise _unsupported()


def close_from(first):
    raise _unsupported()


def ensure_standard_streams():
    raise _unsupported()


def spawn_session(argv, executable, environment, cwd, size, echo, umask, nice, limits):
    raise _unsupported()


def decode_exec_status(data):
    raise _unsupported()


def reopen_slave(master):
    raise _unsupported()


def read_terminal(master, view):
    raise _unsupported()


def write_terminal(master, data):
    raise _unsupported()


def resize_terminal(master, size):
    raise _unsupported()


def terminal_size(descriptor):
    raise _unsupported()


def foreground_group(master):
    raise _unsupported()


def canonical_mode(master):
    raise _unsupported()


def hides_input(master):
    raise _unsupported()


def end_of_input(master):
    raise _unsupported()


def terminal_device(master):
    raise _unsupported()


def make_memory(size):
    raise _unsupported()


def map_memory(descriptor):
    raise _unsupported()


def listen(path):
    raise _unsupported()


def connect(path, timeout_s):
    raise _unsupported()


def connect_now(path):
    raise _unsupported()


def watch_listener(sock):
    raise _unsupported()


def accept(listener):
    raise _unsupported()


def socket_pair():
    raise _unsupported()


def adopt_socket(descriptor):
    raise _unsupported()


def peer_user(sock):
    raise _unsupported()


def peer_process(sock):
    raise _unsupported()


def send_descriptors(sock, data, descriptors):
    raise _unsupported()


def receive_descriptors(sock, limit):
    raise _unsupported()


def try_lock(path, purpose, shared=False):
    raise _unsupported()


def lock_holder(path):
    raise _unsupported()


def lock_open_file(descriptor):
    raise _unsupported()


def make_poller(any_file=False):
    raise _unsupported()


def make_inner_poller():
    raise _unsupported()


def poller_name():
    raise _unsupported()


def watch_signals(names, act=None):
    raise _unsupported()


def run_within(timeout_s, act):
    raise _unsupported()


def ignore_signals(names):
    raise _unsupported()


def enter_raw(descriptor, keep_output):
    raise _unsupported()


def leave_raw(descriptor, saved):
    raise _unsupported()


def reopen_terminal(descriptor):
    raise _unsupported()


def is_same_terminal(descriptor, other):
    raise _unsupported()


def open_lent_terminal(descriptor):
    raise _unsupported()


def watch_stops(pid):
    raise _unsupported()


def is_foreground(descriptor):
    raise _unsupported()


def stop_self():
    raise _unsupported()


def process_confinement(pid):
    raise _unsupported()


def group_name(number):
    raise _unsupported()


def look_at_lock(path, shared=False):
    raise _unsupported()


def terminal_supply():
    raise _unsupported()


def file_system(path):
    raise _unsupported()


def ring_memory(pid=None):
    raise _unsupported()


def logout_facts():
    raise _unsupported()


def user_bus():
    raise _unsupported()


def find_program(name):
    raise _unsupported()


def manager_texts(name):
    raise _unsupported()


def cleaning_age(directory):
    raise _unsupported()
