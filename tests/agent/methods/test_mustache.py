# SPDX-License-Identifier: Apache-2.0
"""The template language, rule by rule."""

from __future__ import annotations

import pytest

from quarterdeck_agent.methods import mustache
from quarterdeck_agent.methods.system import UnableError

DATA: dict[str, object] = {
    "text": 'a<b>"&',
    "no": False,
    "zero": 0,
    "list": [{"n": 1}, {"n": 2}],
    "map": {"x": {"y": "deep"}, "dotted.key": "odd"},
    "nothing": [],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain { } text", "plain { } text"),
        ("{{text}}", "a&lt;b&gt;&quot;&amp;"),
        ("{{{text}}}{{& text }}", 'a<b>"&a<b>"&'),
        ("[{{missing}}]", "[]"),
        ("{{zero}}", "0"),
        ("{{map.x.y}} {{map.dotted.key}} {{map.x.none}}", "deep odd "),
        ("{{#list}}{{n}};{{/list}}", "1;2;"),
        ("{{#list}}{{text}}{{/list}}", "a&lt;b&gt;&quot;&amp;" * 2),
        ("{{#map}}{{#x}}{{y}}{{/x}}{{/map}}", "deep"),
        ("{{#no}}x{{/no}}{{^no}}y{{/no}}", "y"),
        ("{{^nothing}}none{{/nothing}}{{#nothing}}x{{/nothing}}", "none"),
        ("{{#map.x}}{{@}}={{.}}{{/map.x}}", "y=deep"),
        ("a{{! a comment }}b", "ab"),
        ("{{=<% %>=}}<%zero%> {{zero}}", "0 {{zero}}"),
        ("{{$map.x}}", '{"y": "deep"}'),
        ("{{%list}}", '[\n  {\n    "n": 1\n  },\n  {\n    "n": 2\n  }\n]'),
        ("a\n  {{#list}}\n- {{n}}\n  {{/list}}\nb\n", "a\n- 1\n- 2\nb\n"),
        ("a\r\n{{! alone }}\r\nb", "a\r\nb"),
        ("a {{#list}}\n{{/list}} b", "a \n\n b"),
        ("{{#list}}\n{{/list}}", ""),
    ],
)
def test_a_template_renders(template: str, text: str) -> None:
    assert mustache.render(template, DATA) == text


@pytest.mark.parametrize("template", ["{{#a}}", "{{/a}}", "{{#a}}{{/b}}", "{{a", "{{>other}}", "{{=one=}}"])
def test_a_template_that_cannot_be_read_is_refused(template: str) -> None:
    with pytest.raises(UnableError):
        mustache.render(template, DATA)
