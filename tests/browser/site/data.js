fetch("data.json?of=shop").then((answer) => answer.json()).then(({ goods }) => {
  document.getElementById("late").textContent = goods.join(", ");
  document.title = "done: the shop";
});
