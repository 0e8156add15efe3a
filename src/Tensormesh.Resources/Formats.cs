using System.Diagnostics.CodeAnalysis;
using System.Text.RegularExpressions;

namespace Tensormesh.Resources;

/// <summary>The patterns and bounds that the CRDs' schemas and <see cref="Validation"/> share.</summary>
/// <remarks>They are written for RE2 (the API server) and mean the same in .NET: no look-around, no classes such as \d.</remarks>
public static class Formats
{
    /// <summary>Dollars, never a float: "20", "2.50", "0.000000070".</summary>
    public const string Dollars = @"^[0-9]{1,9}(\.[0-9]{1,9})?$";
    public const int DollarsMaxLength = 19;

    /// <summary>Bytes, as Kubernetes writes memory: 40Gi, 81559Mi, 80G.</summary>
    public const string Memory = @"^[0-9]{1,9}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$";
    public const int MemoryMaxLength = 15;

    /// <summary>Any Kubernetes quantity of sane size, as a pod template may have it: 2, 500m, 0.5Gi, 1e3.</summary>
    public const string Quantity = @"^[+-]?([0-9]{1,24}(\.[0-9]{0,24})?|\.[0-9]{1,24})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$";
    public const int QuantityMaxLength = 54;

    /// <summary>A CUDA compute capability, major.minor.</summary>
    public const string ComputeCapability = @"^[1-9][0-9]?\.[0-9]$";
    public const int ComputeCapabilityMaxLength = 4;

    /// <summary>A Go duration without sign: 24h, 1h30m, 0s.</summary>
    public const string Duration = @"^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$";
    public const int DurationMaxLength = 32;

    /// <summary>An IANA time zone's name by its looks; whether there is such a zone only <see cref="Validation"/> can tell.</summary>
    public const string TimeZone = @"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$";
    public const int TimeZoneMaxLength = 64;

    /// <summary>A label's value that is not empty, as GPU products are.</summary>
    public const string LabelValue = @"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$";
    public const int LabelValueMaxLength = 63;

    /// <summary>A container's name, as pods have it.</summary>
    public const string ContainerName = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    public const int ContainerNameMaxLength = 63;

    /// <summary>A served model's id, such as openai/gpt-oss-20b.</summary>
    public const string Model = @"^[A-Za-z0-9]([A-Za-z0-9_./:-]*[A-Za-z0-9])?$";
    public const int ModelMaxLength = 253;

    public const int DisplayNameMaxLength = 128;

    /// <summary>As the driver and the device plugin write it; older drivers put a path after a MIG instance's.</summary>
    public const string GpuUuid = "^(GPU|MIG)-[0-9A-Za-z/-]+$";
    public const int GpuUuidMaxLength = 96;

    public const int NodeNameMaxLength = 253;
    public const int MessageMaxLength = 1024;

    /// <summary>The domain of the resources that only <c>spec.gpu.count</c> may ask for.</summary>
    public const string GpuResourcePrefix = "nvidia.com/";

    public const int MaxGpusPerPod = 16;
    public const int MaxReplicas = 1000;
    public const int MaxGpusPerDeployment = 1000;

    /// <summary>Bounds that keep the CEL rules' cost within what an API server allows.</summary>
    public const int MaxContainers = 32;
    public const int MaxResourcesPerContainer = 32;
    public const int MaxGpuPrices = 256;
    public const int MaxServerlessPrices = 1024;

    /// <summary>Bounds of a GpuNode: more than silicon has, and far below what an object may weigh.</summary>
    public const int MaxGpusPerNode = 64;
    public const int MaxAllocations = 512;
    public const int MaxOutages = 128;
    public const int MaxHolders = 64;
    public const int MaxHeartbeatSeconds = 3600;

    /// <summary>Whether the whole text has the format, as the API server would say.</summary>
    internal static bool Matches([NotNullWhen(true)] string? text, string pattern, int maxLength) =>
        text is not null
        && text.Length <= maxLength
        // In .NET a $ also matches before a last newline; in RE2 it does not.
        && !text.EndsWith('\n')
        && Regex.IsMatch(text, pattern, RegexOptions.CultureInvariant);
}
