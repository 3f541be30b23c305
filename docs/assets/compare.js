// The slider is a range input, so that mouse, touch and arrow keys all work without more code.
for (const box of document.querySelectorAll(".compare")) {
  const input = box.querySelector("input");
  const show = () => {
    box.style.setProperty("--at", `${input.value}%`);
    input.setAttribute("aria-valuetext", `${input.value} % before`);
  };
  input.addEventListener("input", show);
  show();
}
