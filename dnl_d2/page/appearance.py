"""How the page looks and how a pointer moves on it: what Gradio takes as a theme, CSS and HTML."""

from gradio.themes import Base, Default

STYLE = """
.gradio-container .main { padding: 10px 20px 4px !important; }
.gradio-container .html-container { padding: 0; }
.choices input { text-overflow: ellipsis; padding-right: 16px; }
.choices .icon-wrap { right: 4px; }
#message { font-size: 15px; }
h3 { margin: 0 !important; }
.failed { color: #c2271d; font-weight: 600; }
.dark .failed { color: #ff8a80; }
.pictures img { cursor: crosshair; width: 100%; height: 100%; object-fit: contain !important; }
.legend { display: flex; flex-wrap: wrap; align-content: flex-start; gap: 0 12px; height: 44px;
  overflow-y: auto; }
.legend span { white-space: nowrap; line-height: 22px; }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 5px;
  border: 1px solid #0006; vertical-align: -1px; }
.legend small { opacity: 0.7; }
.nothing { display: flex; align-items: center; justify-content: center; padding: 0 20px;
  border: 1px dashed #8886; border-radius: 4px; text-align: center; }
"""
# A pressed pointer, at rest or moving, presses the button "point" for the place it is at. Gradio's
# own event of a clicked picture will not do: of quick clicks it repeats the first, not the last.
POINTING = """
<script>
const point = (event) => {
  const image = event.target.closest?.(".pictures img");
  if (!image?.naturalWidth || !(event.buttons & 1)) return;
  const box = image.getBoundingClientRect();
  const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const share = (at, start, length, pixels) => 0.5 + (at - start - length / 2) / (scale * pixels);
  const place = [
    share(event.clientX, box.left, box.width, image.naturalWidth),
    share(event.clientY, box.top, box.height, image.naturalHeight),
  ];
  if (place.some((at) => at < 0 || at >= 1)) return;
  window.place = place;
  document.querySelector("#point").click();
};
let moved = 0;
document.addEventListener("pointerdown", point);
document.addEventListener("pointermove", (event) => {
  if (event.timeStamp - moved < 40) return;
  moved = event.timeStamp;
  point(event);
});
document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.(".pictures img")) event.preventDefault();
});
</script>
"""
# Puts the place in front of what the server is told.
TELL_PLACE = "(_, ...others) => [window.place, ...others]"


def theme() -> Base:
    """Gradio's with the system's fonts: its own would be asked of another host."""
    font, mono = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    small = Default(font=font, font_mono=mono, spacing_size="sm", radius_size="sm")
    return small.set(layout_gap="8px")
