"""One tree of errors. Each class knows its HTTP status, its OpenAI `type` and `code`, and whether a retry can help.

The same classes are raised in the gateway and in the model servers; `kind` is an error's name on the wire.
"""

from __future__ import annotations


class VFastMLError(Exception):
    """Base of every error that may reach a client. `message` is written for it: no paths, no input echoed back. Left
    out, it is the class's own sentence."""

    status = 500
    type = "server_error"
    default_message = "The request failed."
    default_code: str | None = None
    retryable = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.message = self.default_message if message is None else message
        super().__init__(self.message)
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after_s = retry_after_s

    @property
    def status_code(self) -> int:
        """The same as `status`."""
        return self.status

    @property
    def kind(self) -> str:
        """What `Failed.kind` carries, and what `from_kind` takes: the name of the class, or of the nearest one above it
        that is defined here, as the other side knows no others."""
        return next(cls.__name__ for cls in type(self).__mro__ if cls.__module__ == __name__)


class UserError(VFastMLError):
    """The request is at fault; sending it again unchanged fails again."""

    status = 400
    type = "invalid_request_error"
    default_message = "The request cannot be answered as it is."


class InvalidRequestError(UserError):
    """A field is missing, malformed or out of range."""

    default_message = "The request is not valid."


class UnsupportedError(UserError):
    """A field asks for something that this server, or this model, cannot do."""

    default_message = "The request asks for something that this server does not support."
    default_code = "unsupported_parameter"


class AuthenticationError(UserError):
    """No key, or not a known one."""

    status = 401
    type = "authentication_error"
    default_message = "A valid API key is required."
    default_code = "invalid_api_key"


class PermissionDeniedError(UserError):
    """The key is known, and does not open this."""

    status = 403
    type = "permission_error"
    default_message = "This API key may not do that."
    default_code = "permission_denied"


class NotFoundError(UserError):
    """No such route or object."""

    status = 404
    type = "not_found_error"
    default_message = "What was asked for does not exist."


class ModelNotFoundError(UserError):
    """No server serves a model of that name."""

    status = 404
    default_message = "There is no model of that name."
    default_code = "model_not_found"


class MethodNotAllowedError(UserError):
    """The route exists, but not for this HTTP method."""

    status = 405
    default_message = "This route does not take that HTTP method."


class RequestTooLargeError(UserError):
    """The body is larger than the gateway reads."""

    status = 413
    default_message = "The request is too large."
    default_code = "request_too_large"


class UnsupportedMediaTypeError(UserError):
    """The body comes in a form that is not read."""

    status = 415
    default_message = "The body must be sent as it is: no 'Content-Encoding' is read."
    default_code = "unsupported_media_type"


class RateLimitError(UserError):
    """This caller has too much under way."""

    status = 429
    type = "rate_limit_error"
    default_message = "Too many requests at a time: try again a little later."
    default_code = "rate_limit_exceeded"
    retryable = True


class QuotaLimitError(UserError):
    """This caller has used up what it was granted."""

    status = 429
    type = "insufficient_quota"
    default_message = "What this API key was granted is used up."
    default_code = "insufficient_quota"


class RequestCancelledError(UserError):
    """The client went away or cancelled; nobody usually reads this."""

    status = 499
    default_message = "The request was cancelled."
    default_code = "request_cancelled"


class InternalServerError(VFastMLError):
    """Our fault. The details are in the log, not in the message."""

    default_message = "The server made a mistake while it handled the request."
    default_code = "internal_error"


class InternalServerTooBusyError(InternalServerError):
    """Loading, draining, full or gone: the same request may succeed a little later."""

    status = 503
    type = "service_unavailable"
    default_message = "The server is busy: try again a little later."
    default_code = "service_unavailable"
    retryable = True


class ServerLostError(InternalServerTooBusyError):
    """The model server that held this request is gone."""

    default_message = "The model server that worked on this request is gone."
    default_code = "server_lost"


class DeadlineExceededError(InternalServerError):
    """The request's own deadline passed."""

    status = 504
    type = "timeout_error"
    default_message = "The request was not answered before its deadline."
    default_code = "deadline_exceeded"


def _tree(root: type[VFastMLError]) -> dict[str, type[VFastMLError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


_BY_KIND = _tree(VFastMLError)


def from_kind(
    kind: str,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    retry_after_s: float | None = None,
) -> VFastMLError:
    """The error that `kind` names. A kind of a newer peer that we do not know becomes InternalServerError."""
    cls = _BY_KIND.get(kind, InternalServerError)
    return cls(message, param=param, code=code, retry_after_s=retry_after_s)
