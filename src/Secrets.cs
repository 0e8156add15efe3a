namespace Tensormesh;

/// <summary>
/// Compiled into each executable that has secrets. They come as files, as a cluster mounts them: one for each setting, of the setting's name as in the environment
/// (<c>ConnectionStrings__Billing</c>). They win over what the environment says.
/// </summary>
internal static class Secrets
{
    public const string FolderSetting = "Tensormesh:SecretsFolder";

    /// <returns>What is wrong and what to do; null when all is well, and when no folder is named.</returns>
    public static string? Add(IConfigurationManager configuration)
    {
        if (configuration[FolderSetting] is not { Length: > 0 } folder) return null;
        if (!Directory.Exists(folder)) return $"Tensormesh__SecretsFolder is '{folder}', and there is no such folder: mount the secrets there, or leave the setting out";
        try
        {
            configuration.AddKeyPerFile(Path.GetFullPath(folder), optional: false);
            return null;
        }
        catch (Exception unreadable) when (unreadable is IOException or UnauthorizedAccessException)
        {
            return $"a secret in '{folder}' (Tensormesh__SecretsFolder) cannot be read: {unreadable.Message}";
        }
    }
}
