// Whether anybody can see the page: a hidden one gets no pictures.
import { signal } from "@preact/signals";

export const visible = signal(document.visibilityState === "visible");

document.addEventListener("visibilitychange", () => {
  visible.value = document.visibilityState === "visible";
});
