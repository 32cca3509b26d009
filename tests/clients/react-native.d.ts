// The types of React Native that examples/use-chat-sse.native.tsx uses, from its documentation: the package itself has
// 80 MB.
import type { ReactElement, ReactNode } from "react";

export const AppState: { addEventListener(type: "change", listener: (state: string) => void): { remove(): void } };
export function Button(props: { title: string; disabled?: boolean; onPress: () => void }): ReactElement;
export function FlatList<Item>(props: {
  data: ArrayLike<Item>;
  keyExtractor: (item: Item) => string;
  renderItem: (about: { item: Item; index: number }) => ReactElement;
}): ReactElement;
export function Text(props: { accessibilityRole?: "alert"; children?: ReactNode }): ReactElement;
export function TextInput(props: {
  accessibilityLabel?: string;
  value: string;
  onChangeText: (text: string) => void;
  onSubmitEditing: () => void;
}): ReactElement;
export function View(props: { style?: object; children?: ReactNode }): ReactElement;
