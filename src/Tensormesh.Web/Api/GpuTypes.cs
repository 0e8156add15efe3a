using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// The public API's names of GPU types and cloud providers. Its own members are A100, H100, H200 and B200; a cluster with other
/// GPUs gets members of the same form (<c>GPU_TYPE_L40S</c>), which are ours.
/// </summary>
internal static class GpuTypes
{
    public const string Unspecified = "GPU_TYPE_UNSPECIFIED";
    public const string Ours = "CLOUD_PROVIDER_ONPREM";
    public static readonly string[] CloudProviders =
        ["CLOUD_PROVIDER_UNSPECIFIED", Ours, "CLOUD_PROVIDER_NEBIUS", "CLOUD_PROVIDER_LAMBDA", "CLOUD_PROVIDER_YOTTA"];

    private const string Prefix = "GPU_TYPE_";

    /// <summary>
    /// <c>NVIDIA-H100-80GB-HBM3</c> is <c>GPU_TYPE_H100</c>: the first word that starts with a letter and has a digit. Where there is
    /// none, all words after the maker's.
    /// </summary>
    public static string TypeOf(GpuProduct product)
    {
        var words = product.Name.ToUpperInvariant().Split('-', '_', ' ').Where(word => word is not ("NVIDIA" or "AMD" or "")).ToArray();
        var model = words.FirstOrDefault(word => char.IsAsciiLetterUpper(word[0]) && word.Any(char.IsAsciiDigit));
        return Prefix + (model ?? string.Join('_', words));
    }

    public static bool IsTypeName(string? name) => string.IsNullOrEmpty(name)
        || (name.StartsWith(Prefix, StringComparison.Ordinal) && name.Length is > 9 and <= 64
            && name.All(letter => char.IsAsciiLetterUpper(letter) || char.IsAsciiDigit(letter) || letter == '_'));

    /// <param name="ours">Whether the name includes this cluster, which is on premises.</param>
    public static bool TryReadProvider(string? name, out bool ours)
    {
        ours = name is null or "" or "CLOUD_PROVIDER_UNSPECIFIED" or Ours;
        return ours || CloudProviders.Contains(name);
    }
}
