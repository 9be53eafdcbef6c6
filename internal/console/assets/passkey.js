// Has the browser make a passkey, or show one, and sends what it made with the form.
// Where the browser cannot, the forms stay hidden and the page says so.
"use strict";

const passkeys = window.PublicKeyCredential;
const able = passkeys && passkeys.parseCreationOptionsFromJSON && passkeys.parseRequestOptionsFromJSON;

const words = {
  NotAllowedError: "Nothing was shown: it was given up, took too long, or there is no passkey for this page.",
  InvalidStateError: "This device has a passkey of yours already.",
  SecurityError: "The browser uses no passkeys with this address.",
};

async function shown(form) {
  const asked = await fetch(form.dataset.passkey, { method: "POST", body: new URLSearchParams(new FormData(form)) });
  const told = await asked.json().catch(() => ({}));
  if (!told.publicKey) throw new Error(told.error || "This was answered with status " + asked.status + ". Load the page again, and sign in if it asks for that.");
  return told.publicKey.user
    ? navigator.credentials.create({ publicKey: passkeys.parseCreationOptionsFromJSON(told.publicKey) })
    : navigator.credentials.get({ publicKey: passkeys.parseRequestOptionsFromJSON(told.publicKey) });
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  if (!able) {
    document.getElementById("no-passkeys").hidden = false;
    continue;
  }
  form.hidden = false;
  const fault = form.querySelector("[role=alert]"), button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    fault.hidden = button.disabled = true;
    try {
      form.elements.answer.value = JSON.stringify(await shown(form));
      if (form.elements.present) form.elements.present.value = ""; // it was asked for, and is not sent twice
      form.submit();
    } catch (e) {
      fault.textContent = words[e.name] || e.message;
      fault.hidden = false;
      button.disabled = false;
    }
  });
}
