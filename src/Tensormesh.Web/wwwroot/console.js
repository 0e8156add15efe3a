// What the pages need of the browser itself. No page has script of its own: the content security policy forbids it.
(() => {
  const themeName = "tensormesh-theme";
  const stripeAddress = "https://js.stripe.com/v3/";

  const remember = dark => {
    document.cookie = `${themeName}=${dark ? "dark" : "light"};path=/;max-age=31536000;samesite=lax`;
    document.documentElement.classList.toggle("dark", dark);
  };

  const wantsDark = () => {
    // The page has its connection: from now on it hears what is done on it.
    document.documentElement.dataset.live = "true";
    const chosen = localStorage.getItem(themeName);
    const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    remember(dark);
    return dark;
  };

  const chooseDark = dark => {
    localStorage.setItem(themeName, dark ? "dark" : "light");
    remember(dark);
  };

  // Fetches a file, tells how far it is (lines and bytes), and gives it to the person. Answers null, or why it failed.
  const downloads = new Map();
  const download = async (id, address, name, page) => {
    const abort = new AbortController();
    downloads.set(id, abort);
    try {
      const answer = await fetch(address, { signal: abort.signal, redirect: "error" });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => null);
        return problem?.detail ?? `The server answered ${answer.status}.`;
      }
      const reader = answer.body.getReader();
      const parts = [];
      let lines = 0, bytes = 0, told = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        bytes += value.length;
        for (const letter of value) if (letter === 10) lines++;
        if (performance.now() - told > 200) {
          told = performance.now();
          await page.invokeMethodAsync("Progress", Math.max(0, lines - 1), bytes);
        }
      }
      await page.invokeMethodAsync("Progress", Math.max(0, lines - 1), bytes);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      return null;
    } catch (failure) {
      return failure.name === "AbortError" ? "" : "The connection was lost before the file was complete. Try again.";
    } finally {
      downloads.delete(id);
    }
  };
  const cancelDownload = id => downloads.get(id)?.abort();

  // Asks for the next page when the end of the list comes near.
  const watchEnd = (element, page) => {
    const observer = new IntersectionObserver(seen => {
      if (seen.some(one => one.isIntersecting)) page.invokeMethodAsync("EndIsNear");
    }, { rootMargin: "400px" });
    observer.observe(element);
    return { stop: () => observer.disconnect() };
  };

  // While a dialog is open, Tab goes round within it. The component library's own trap asks the server where to go, and whoever presses Tab
  // faster than that answers would be let out.
  const reachable = "a[href], button:not([disabled]), input:not([disabled]):not([type=hidden]), select:not([disabled]), textarea:not([disabled]), iframe, [tabindex='0']";
  document.addEventListener("keydown", pressed => {
    if (pressed.key !== "Tab" || pressed.ctrlKey || pressed.altKey || pressed.metaKey) return;
    const dialog = [...document.querySelectorAll("[role=dialog]")].at(-1);
    if (!dialog) return;
    const stops = [...dialog.querySelectorAll(reachable)].filter(one => one.tabIndex >= 0 && one.checkVisibility({ visibilityProperty: true }));
    if (stops.length === 0) return;
    const [first, last, here] = [stops[0], stops.at(-1), document.activeElement];
    const next = !dialog.contains(here) ? (pressed.shiftKey ? last : first)
      : pressed.shiftKey && (here === first || !stops.includes(here) && !stops.some(one => one.compareDocumentPosition(here) & Node.DOCUMENT_POSITION_FOLLOWING)) ? last
      : !pressed.shiftKey && here === last ? first : null;
    if (!next) return;
    pressed.preventDefault();
    next.focus();
  }, true);

  // The payment company's own form: a card number is typed into its frame, and never comes here.
  let stripe, elements;
  const loadStripe = key => new Promise((done, failed) => {
    if (window.Stripe) return done(stripe ??= window.Stripe(key));
    const script = document.createElement("script");
    script.src = stripeAddress;
    script.onload = () => done(stripe = window.Stripe(key));
    script.onerror = () => failed(new Error("the payment company's script could not be loaded"));
    document.head.append(script);
  });
  const mountCard = async (key, secret, place) => {
    await loadStripe(key);
    const dark = document.documentElement.classList.contains("dark");
    elements = stripe.elements({ clientSecret: secret, appearance: { theme: dark ? "night" : "stripe" } });
    elements.create("payment").mount(place);
  };
  // Answers { id } of the card, or { error } for the person.
  const saveCard = async () => {
    const result = await stripe.confirmSetup({ elements, redirect: "if_required", confirmParams: { return_url: location.href } });
    if (result.error) return { error: result.error.message ?? "The card was not accepted." };
    const card = result.setupIntent.payment_method;
    return { id: typeof card === "string" ? card : card.id };
  };
  const confirmPayment = async (key, secret) => {
    await loadStripe(key);
    const result = await stripe.handleNextAction({ clientSecret: secret });
    return result.error ? (result.error.message ?? "The bank did not confirm the payment.") : null;
  };

  window.tensormesh = { wantsDark, chooseDark, download, cancelDownload, watchEnd, mountCard, saveCard, confirmPayment };
})();
