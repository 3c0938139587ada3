// Wide tables scroll by the keyboard, too, once the theme has wrapped them.
document$.subscribe(() => setTimeout(() => {
  for (const each of document.querySelectorAll(".md-typeset__scrollwrap")) each.tabIndex = 0;
}));
