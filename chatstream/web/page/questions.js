/** Forms for what a tool asks the user (`call.question`): a field for each property of its flat JSON Schema. */

import { element } from "./dom.js";

const TYPES = { email: "email", uri: "url", date: "date" }; // formats of strings that browsers have fields for

/** The form. `foot` has its buttons; `send(content)` is called with what the user has entered. */
export function form({ schema, url }, foot, send) {
  const fields = Object.entries(schema?.properties ?? {}).map(([name, about]) => field(name, about, schema.required?.includes(name) ?? false));
  const shown = url === undefined ? [] : [element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, url)];
  const made = element("form", {}, ...shown, ...fields.map(({ label }) => label), foot);
  made.onsubmit = (event) => {
    event.preventDefault();
    const given = fields.map(({ name, read }) => [name, read()]).filter(([, value]) => value !== undefined);
    send(url === undefined ? Object.fromEntries(given) : undefined);
  };
  return made;
}

/** A field: its `label` with the control in it, and `read()`, the value, or undefined if nothing was entered. */
function field(name, about, required) {
  const { type, title = name.replaceAll(/[_-]/g, " "), description, default: before } = about;
  const text = [element("span", { dir: "auto" }, title), ...(description ? [element("small", { dir: "auto" }, description)] : [])];
  if (type === "boolean") {
    const control = element("input", { type: "checkbox", checked: before === true });
    return { name, label: element("label", { className: "tick" }, control, ...text), read: () => control.checked };
  }
  const choices = options(type === "array" ? about.items : about);
  if (choices) {
    const several = type === "array";
    const chosen = several ? (before ?? []) : [before];
    const empty = several || (required && before !== undefined) ? [] : [element("option", { value: "" })];
    const control = element("select", { multiple: several, required }, ...empty);
    const made = choices.map(([value, words]) => element("option", { selected: chosen.includes(value) }, words));
    control.append(...made);
    const picked = () => choices.filter((_, index) => made[index].selected).map(([value]) => value);
    return { name, label: element("label", {}, ...text, control), read: () => (several ? picked() : picked()[0]) };
  }
  const number = type === "number" || type === "integer";
  const control = element("input", { type: number ? "number" : (TYPES[about.format] ?? "text"), required, value: before ?? "" });
  if (number) control.step = type === "integer" ? "1" : "any";
  const limits = { min: about.minimum, max: about.maximum, minlength: about.minLength, maxlength: about.maxLength };
  for (const [attribute, limit] of Object.entries(limits)) if (limit !== undefined) control.setAttribute(attribute, limit);
  const read = () => (control.value === "" && (number || !required) ? undefined : number ? Number(control.value) : control.value);
  return { name, label: element("label", {}, ...text, control), read };
}

/** The values to choose from, each with its words; undefined if there is no such list. */
function options({ enum: values, enumNames, oneOf, anyOf } = {}) {
  if (values) return values.map((value, index) => [value, String(enumNames?.[index] ?? value)]);
  return (oneOf ?? anyOf)?.map(({ const: value, title }) => [value, title ?? String(value)]);
}
