using MudBlazor;

namespace Tensormesh.Web;

/// <summary>Colours have at least the contrast that WCAG AA asks of text; fonts are the reader's own, since nothing is fetched from elsewhere.</summary>
internal static class ConsoleTheme
{
    private static readonly string[] Font = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "Cantarell", "Noto Sans", "DejaVu Sans", "sans-serif"];

    public static readonly MudTheme Theme = new()
    {
        PaletteLight = new PaletteLight
        {
            Primary = "#1d4ed8",
            Secondary = "#0f766e",
            Background = "#f6f7f9",
            Surface = "#ffffff",
            AppbarBackground = "#ffffff",
            AppbarText = "#111827",
            DrawerBackground = "#ffffff",
            DrawerText = "#1f2937",
            DrawerIcon = "#4b5563",
            TextPrimary = "#111827",
            TextSecondary = "#4b5563",
            ActionDefault = "#4b5563",
            LinesDefault = "#e5e7eb",
            LinesInputs = "#6b7280",
            TableLines = "#e5e7eb",
            Divider = "#e5e7eb",
            Success = "#15803d",
            Error = "#b91c1c",
            Warning = "#b45309",
            Info = "#1d4ed8",
        },
        PaletteDark = new PaletteDark
        {
            Primary = "#93b4ff",
            PrimaryContrastText = "#0b1530",
            Secondary = "#5eead4",
            SecondaryContrastText = "#06231f",
            Black = "#0b0f19",
            Background = "#0d1220",
            Surface = "#151c2e",
            AppbarBackground = "#151c2e",
            AppbarText = "#f3f4f6",
            DrawerBackground = "#151c2e",
            DrawerText = "#e5e7eb",
            DrawerIcon = "#9ca3af",
            TextPrimary = "#f3f4f6",
            TextSecondary = "#b6bdc9",
            ActionDefault = "#b6bdc9",
            LinesDefault = "#2b344b",
            LinesInputs = "#8b95a8",
            TableLines = "#2b344b",
            Divider = "#2b344b",
            Success = "#86efac",
            SuccessContrastText = "#052e16",
            Error = "#fca5a5",
            ErrorContrastText = "#3b0a0a",
            Warning = "#fcd34d",
            WarningContrastText = "#3b2503",
            Info = "#93b4ff",
            InfoContrastText = "#0b1530",
        },
        LayoutProperties = new LayoutProperties { DefaultBorderRadius = "8px", DrawerWidthLeft = "232px" },
        Typography = new Typography
        {
            Default = new DefaultTypography { FontFamily = Font },
            Button = new ButtonTypography { FontFamily = Font, TextTransform = "none", FontWeight = "600" },
        },
    };
}
