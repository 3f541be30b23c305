// The slider is a range input, so that mouse, touch and arrow keys all work without more code.
for (const box of document.querySelectorAll(".compare")) {
  const input = box.querySelector("input");
  const show = () => {
    box.style.setProperty("--at", `${input.value}%`);
    input.setAttribute("aria-valuetext", `${input.value} % before`);
  };
  input.addEventListener("input", show);
  show();
  // Without this script the first way is shown and its button is chosen.
  for (const way of box.parentElement.querySelectorAll(".compare-ways input")) {
    const choose = () => {
      if (!way.checked) return;
      box.querySelector(".compare__after").src = way.value;
      box.querySelector(".compare__name").textContent = way.parentElement.querySelector("span").textContent;
    };
    way.addEventListener("change", choose);
    choose(); // a browser may remember another choice
  }
}
