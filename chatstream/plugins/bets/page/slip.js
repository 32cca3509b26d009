/** A recommended bet as a slip, for the chat page. Facts that the answer did not state are left out. */

const GERMAN = {
  "Recommended bet": "Empfohlene Wette",
  "See the answer": "Siehe Antwort",
  Stake: "Einsatz",
  Odds: "Quote",
  decimal: "dezimal",
};

export default function slip({ data: { selection, odds, oddsText, stake } }, { element, language }) {
  const t = (text) => (language === "de" ? GERMAN[text] : text);
  const what = element("div", { className: "bet-what" }, element("h3", {}, t("Recommended bet")));
  what.append(element("p", { className: "bet-selection" }, selection ?? t("See the answer")));
  if (stake) what.append(element("p", { className: "bet-stake" }, `${t("Stake")} ${stake}`));
  const shown = element("dl", { className: "bet-odds" }, element("dt", {}, t("Odds")), element("dd", {}, oddsText));
  if (Number(oddsText) !== odds) {
    shown.append(element("dd", { className: "decimal" }, `${odds.toFixed(2)} ${t("decimal")}`));
  }
  return element("div", { className: "bet" }, what, shown);
}
