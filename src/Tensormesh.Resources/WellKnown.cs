namespace Tensormesh.Resources;

/// <summary>Labels, annotations, finalizers and field managers: the only place where these literals stand.</summary>
public static class WellKnown
{
    public const string Group = "tensormesh.ai";
    public const string Version = "v1alpha1";
    public const string ApiVersion = Group + "/" + Version;

    /// <summary>Field manager of everything that the operator applies.</summary>
    public const string FieldManager = "tensormesh-operator";

    /// <summary>Field manager of everything that a node's agent applies.</summary>
    public const string AgentFieldManager = "tensormesh-agent";

    /// <summary>The service account of every node's agent, in the agents' own namespace.</summary>
    public const string AgentAccount = "tensormesh-agent";

    /// <summary>On a namespace: the account that pays for what runs in it. Tenants cannot edit it.</summary>
    public const string AccountLabel = "tensormesh.ai/account";

    /// <summary>On the child Deployment and its pods: the name of the GpuDeployment.</summary>
    public const string DeploymentLabel = "tensormesh.ai/gpudeployment";

    /// <summary>On the child Deployment and its pods: the uid of the GpuDeployment.</summary>
    public const string DeploymentUidLabel = "tensormesh.ai/gpudeployment-uid";

    /// <summary>On the child Deployment: a hash of what was rendered, so that drift is seen.</summary>
    public const string RenderedHashAnnotation = "tensormesh.ai/rendered-hash";

    /// <summary>On the pod template: the container that holds the GPUs.</summary>
    public const string GpuContainerAnnotation = "tensormesh.ai/gpu-container";

    /// <summary>On pods and GpuDeployments: stays until usage is recorded, so that an operator that was down loses none.</summary>
    public const string MeteringFinalizer = "tensormesh.ai/metering";

    /// <summary>On the operator's own service account and rights: they stay in force until an uninstall is done.</summary>
    public const string RightsFinalizer = "tensormesh.ai/rights";

    /// <summary>On a node that offers GPUs which are not known to work: nothing of ours is placed there. Written by the operator.</summary>
    public const string GpuUnhealthyLabel = "tensormesh.ai/gpu-unhealthy";

    public const string ManagedByLabel = "app.kubernetes.io/managed-by";
    public const string NameLabel = "app.kubernetes.io/name";

    /// <summary>The extended resource that the NVIDIA device plugin registers.</summary>
    public const string GpuResource = "nvidia.com/gpu";

    /// <summary>Labels that GPU Feature Discovery writes on nodes; memory in MiB.</summary>
    public const string GpuProductLabel = "nvidia.com/gpu.product";
    public const string GpuMemoryLabel = "nvidia.com/gpu.memory";
    public const string GpuCountLabel = "nvidia.com/gpu.count";
    public const string GpuComputeMajorLabel = "nvidia.com/gpu.compute.major";
    public const string GpuComputeMinorLabel = "nvidia.com/gpu.compute.minor";
}
