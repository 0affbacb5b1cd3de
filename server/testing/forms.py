"""The forms of a page, as a browser reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass(slots=True)
class Form:
    """A form, and what a browser sends if nobody fills it in."""

    action: str = ""
    """Where it leads; empty: to the page itself."""
    method: str = "GET"
    values: dict[str, list[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """Of all fields, also those that are sent only if somebody fills them in."""

    def filled_in(self, data: Mapping[str, str | Iterable[str]]) -> dict[str, str | Iterable[str]]:
        """Return what is sent if somebody fills in *data*."""
        return {**self.values, **data}


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._select: str | None = None
        self._text: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(attributes.get("action", ""), attributes.get("method", "GET").upper())
            self.forms.append(self._form)
        elif self._form is not None and "disabled" not in attributes:
            self._add(self._form, tag, attributes)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        elif tag == "textarea":
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._form is not None and self._text is not None:
            before = self._form.values[self._text][-1]
            # HTML drops the line break after <textarea>.
            self._form.values[self._text][-1] = before + data if before else data.removeprefix("\n")

    def _add(self, form: Form, tag: str, attributes: dict[str, str]) -> None:
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if tag == "option" and self._select is not None:
            chosen = form.values.setdefault(self._select, [value])
            if "selected" in attributes:
                chosen[:] = [value]
        if tag not in ("input", "textarea", "select", "button") or not name:
            return
        form.names.add(name)
        kind = attributes.get("type", "").lower()
        if tag == "select":
            self._select = name
        elif tag == "textarea":
            self._text = name
            form.values.setdefault(name, []).append("")
        elif tag == "input" and kind in ("checkbox", "radio"):
            if "checked" in attributes:
                form.values.setdefault(name, []).append(attributes.get("value", "on"))
        elif tag == "input" and kind not in ("submit", "button", "image", "reset", "file"):
            form.values.setdefault(name, []).append(value)


def find_form(html: str, names: Iterable[str]) -> Form:
    """Return the first form of the page *html* that has a field for each of *names*.

    Raises:
        ValueError: There is none; the message names the fields that there are.
    """
    page = _Forms()
    page.feed(html)
    page.close()
    wanted = set(names)
    for form in page.forms:
        if wanted <= form.names:
            return form
    found = "; ".join(", ".join(sorted(form.names)) or "no field" for form in page.forms)
    there_is = f"there are: {found}" if found else "there is no form"
    raise ValueError(f"no form of the page has the fields {', '.join(sorted(wanted))}; {there_is}")
