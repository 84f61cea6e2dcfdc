"""RemoteMonitor: the logs of every epoch, sent to a web server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.logs import as_python
from oncue.core.warn import warn

_GIVE_UP_AFTER = 3


@builtin
class RemoteMonitor(Callback):
    """Sends the logs of every epoch to a server by HTTP POST.

    A server that can't be reached costs one warning and at most three times `timeout` seconds, never the run: after
    three failures in a row nothing more is sent.

    Args:
        root: The server's address.
        path: The path that is posted to.
        field: The form's field that holds the JSON text, when it is sent as a form.
        headers: Further HTTP headers.
        send_as_json: Send a JSON body instead of a form.
        timeout: Seconds to wait for the server.

    Raises:
        ValueError: For an address that is not http or https.

    Example:
        >>> RemoteMonitor("http://localhost:9000").path
        '/publish/epoch/end/'
    """

    makes_way = True
    main_process_only = True

    later_fields = ("_failures",)

    def __init__(
        self,
        root: str = "http://localhost:9000",
        path: str = "/publish/epoch/end/",
        field: str = "data",
        headers: Mapping[str, str] | None = None,
        send_as_json: bool = False,
        *,
        timeout: float = 5.0,
    ) -> None:
        super().__init__()
        if urlsplit(root).scheme not in ("http", "https"):
            raise ValueError(f"`root` of RemoteMonitor must begin with http:// or https://; got {root!r}.")
        self.root = root
        self.path = path
        self.field = field
        self.headers = dict(headers) if headers is not None else None
        self.send_as_json = send_as_json
        self.timeout = timeout
        self._failures = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Try the server again."""
        self._failures = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Send the epoch's logs."""
        if self._failures >= _GIVE_UP_AFTER:
            return
        sent = {"epoch": epoch, **{name: as_python(value) for name, value in (logs or {}).items()}}
        text = json.dumps(sent, default=str)
        if self.send_as_json:
            body, kind = text.encode(), "application/json"
        else:
            body, kind = urlencode({self.field: text}).encode(), "application/x-www-form-urlencoded"
        try:
            _post(self.root + self.path, body, {"Content-Type": kind, **(self.headers or {})}, self.timeout)
        except OSError as error:
            self._failed(error)
        else:
            self._failures = 0

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        if self._failures == 1:
            warn(f"Could not reach RemoteMonitor root server at {self.root}: {error}")
        if self._failures == _GIVE_UP_AFTER:
            self._decided("note", "gave_up_sending", root=self.root, failures=self._failures, error=str(error))


def _post(address: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    # Imported here: it loads Python's whole web client, which no other callback needs.
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        # Logs are only sent to the user's address; redirects are not followed.
        def redirect_request(self, *args: Any, **kwargs: Any) -> None:
            return None

    request = urllib.request.Request(address, data=body, headers=headers, method="POST")
    try:
        urllib.request.build_opener(NoRedirect).open(request, timeout=timeout).close()
    except urllib.error.HTTPError as error:
        # The server was reached; what it thinks of the data is its own matter, as in Keras.
        error.close()
